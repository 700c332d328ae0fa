#!/usr/bin/env python3
"""An OTLP/HTTP receiver for tests: reads requests with the official protobuf definitions.

    otlp_receiver.py OUT FAIL_PERCENT

Prints its port, then appends the body of each log record to OUT. It refuses what does not parse, and a
percentage of requests at random, half of them after it took them.
"""
import http.server
import random
import sys

from google.protobuf import json_format, unknown_fields
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

out, percent = open(sys.argv[1], "a", encoding="utf-8"), int(sys.argv[2])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        failing = random.randrange(100) < percent
        taken = self.path == "/v1/logs" and not (failing and random.randrange(2))
        try:
            if self.headers["Content-Type"] == "application/x-protobuf":
                request = ExportLogsServiceRequest.FromString(body)
                # Nothing in it that the definitions do not have.
                assert not unknown_fields.UnknownFieldSet(request)
            else:
                request = json_format.Parse(body, ExportLogsServiceRequest())
        except (json_format.ParseError, DecodeError) as error:
            return self.answer(400, str(error).encode())
        for resource in request.resource_logs:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            assert names["service.name"] == "enforcer"
            for record in (record for scope in resource.scope_logs for record in scope.log_records if taken):
                assert record.severity_number > 0 and record.body.string_value
                out.write(record.body.string_value + "\n")
        out.flush()
        binary = self.headers["Content-Type"] == "application/x-protobuf"
        self.answer(503 if failing or not taken else 200, b"" if binary else b"{}")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
