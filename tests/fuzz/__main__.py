"""`python -m tests.fuzz quantity|review [libFuzzer's arguments]`: looks for an input that breaks a property.

It ends with status 0 when it found none, and else leaves the input in the folder where it runs. `make fuzz` runs both;
found inputs that only reach new code are kept in build/fuzz and stand in for the corpus when it runs again.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["webhook"]):
    from tests.fuzz import properties

HERE = Path(__file__).parent


def quantity(data: bytes) -> None:
    properties.check_quantity(data.decode(errors="surrogateescape"))


def review(data: bytes) -> None:
    properties.check_review(properties.body_of(data))


TARGETS = {"quantity": quantity, "review": review}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(__doc__)
    target, *arguments = sys.argv[1:]
    dictionary = f"-dict={HERE / 'tokens.dict'}"
    atheris.Setup([sys.argv[0], dictionary, *arguments, str(HERE / "corpus" / target)], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
