"""What Hypothesis is to do in all tests: a busy machine breaks no property, and what breaks one can be run again."""

import os

# In the guests of tests/kernel nothing uses it, and an emulated CPU would import it for seconds.
if "IN_GUEST" not in os.environ:
    from hypothesis import settings

    settings.register_profile("ipvlan-bandwidth", deadline=None, print_blob=True)
    settings.load_profile("ipvlan-bandwidth")
