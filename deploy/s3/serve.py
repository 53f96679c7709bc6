"""Serves moto's S3 on 127.0.0.1, one request at a time.

moto looks whether a key exists and stores it in two steps, without a lock, and its server has a thread for each
request: of two racing `If-None-Match: *` writers both can win (seen once in 4,400 races of 16 writers). S3 lets
exactly one win and a table's commit relies on that, so here each request is read in full and then answered under one
lock. Objects are held in memory and end with the process. Request signatures are not checked.
"""

import io
import logging
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.server import MotoRequestHandler
from werkzeug.serving import run_simple
from werkzeug.wsgi import get_input_stream


class OneAtATime:
    def __init__(self, app):
        self.app = app
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        # The body is read before the lock is taken: a slow writer must not hold up the others.
        body = get_input_stream(environ).read()
        environ["wsgi.input"] = io.BytesIO(body)
        environ["wsgi.input_terminated"] = True
        environ["CONTENT_LENGTH"] = str(len(body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        with self.lock:
            answer = self.app(environ, start_response)
            try:
                return list(answer)
            finally:
                close = getattr(answer, "close", None)
                if close is not None:
                    close()


def main():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    MotoRequestHandler.protocol_version = "HTTP/1.1"
    app = OneAtATime(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    main()
