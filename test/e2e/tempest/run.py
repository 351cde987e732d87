"""Runs tempest's tests of the identity API, version 3, and prints a line of JSON for each: {"test", "outcome", "why"}.

TEMPEST_CONFIG_DIR names the folder that tempest.conf is in. Outcomes are pass, fail and skip. A class that cannot be set up
fails or skips by its own name, and its tests with it.
"""
import json
import os
import unittest

import tempest
from tempest.common import credentials_factory

# Here an administrator is who has its role on the system or in the operators' project; the users that tempest makes up have it
# in a project of their own. So all tests use the accounts that they are given.
_provider = credentials_factory.get_credentials_provider


def _given_accounts(name, network_resources=None, force_tenant_isolation=False, identity_version=None):
    return _provider(name, network_resources, False, identity_version)


credentials_factory.get_credentials_provider = _given_accounts

ROOT = os.path.dirname(os.path.dirname(tempest.__file__))
FOLDERS = ("tempest/api/identity/v3", "tempest/api/identity/admin/v3")


def name_of(test):
    """Without the attributes that tempest adds in brackets."""
    return test.id().split("[", 1)[0]


def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


class Lines(unittest.TestResult):
    def _say(self, test, outcome, why=""):
        print(json.dumps({"test": name_of(test), "outcome": outcome, "why": why}), flush=True)

    def addSuccess(self, test):
        self._say(test, "pass")

    # testtools calls these with details instead of what unittest has.
    def addError(self, test, err=None, details=None):
        self._say(test, "fail", self._why(test, err, details))

    def addFailure(self, test, err=None, details=None):
        self._say(test, "fail", self._why(test, err, details))

    def addSkip(self, test, reason=None, details=None):
        if reason is None:
            reason = details["reason"].as_text() if details and "reason" in details else ""
        self._say(test, "skip", reason)

    def _why(self, test, err, details):
        if details is not None:
            return "\n".join(part.as_text() for name, part in details.items() if "traceback" in name)
        return self._exc_info_to_string(err, test) if err is not None else ""


def main():
    loader = unittest.TestLoader()
    tests = []
    for folder in FOLDERS:
        tests += flat(loader.discover(os.path.join(ROOT, folder), top_level_dir=ROOT))
    # This class leaves credentials behind, which another would count.
    tests.sort(key=lambda test: "AccessRulesV3Test" in name_of(test))
    unittest.TestSuite(tests).run(Lines())


main()
