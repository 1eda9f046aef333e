"""Handshakes with the webhook's replicas, as a client does them that trusts a bundle: the standard library alone.

Each line of standard input is {"bundle": PEM, "addresses": [...]}, from then on. Each handshake that fails is a line of
standard output; the last line, at the input's end, is how many there were.
"""

import json
import socket
import ssl
import sys
import threading
import time

NAME = "webhook.ipvlan-bandwidth.svc"
EVERY_S = 0.25


def main() -> None:
    wanted = {"bundle": "", "addresses": []}
    ended = threading.Event()

    def read() -> None:
        for line in sys.stdin:
            wanted.update(json.loads(line))
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    done = 0
    while not ended.is_set():
        bundle, addresses = wanted["bundle"], wanted["addresses"]
        for address in addresses:
            done += 1
            try:
                tls = ssl.create_default_context(cadata=bundle)
                with socket.create_connection((address, 8443), timeout=20) as plain:
                    tls.wrap_socket(plain, server_hostname=NAME).close()
            except OSError as error:
                print(f"{time.strftime('%H:%M:%S')} {address}: {error}", flush=True)
        time.sleep(EVERY_S)
    print(done, flush=True)


if __name__ == "__main__":
    main()
