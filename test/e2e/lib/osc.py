"""Runs commands of the `openstack` client, many in one process, since loading it takes most of the time.

One JSON list of arguments a line on stdin; for each a line {"exit", "out", "err"} on stdout.
"""
import contextlib
import io
import json
import sys

from openstackclient import shell

for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = shell.OpenStackShell().run(json.loads(line))
        except SystemExit as stop:
            code = stop.code
    print(json.dumps({"exit": code, "out": out.getvalue(), "err": err.getvalue()}), flush=True)
