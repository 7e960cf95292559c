"""Test programs in Python: functions named test_*, whose names are sentences, reported as TAP for tests/run.

    from tap import Skip, run_tests

    def test_exit_code_is_passed_on(): ...

    run_tests(globals())

A test fails by an exception (assert will do), and is skipped by raising Skip with the reason.
"""

import fnmatch
import os
import sys
import time
import traceback


class Skip(Exception):
    pass


def expect(got, wanted, what=""):
    """An equality with both values in the message."""
    if got != wanted:
        what = what.decode(errors="replace") if isinstance(what, bytes) else what
        raise AssertionError(f"{what + ': ' if what else ''}got {shorten(got)}, expected {shorten(wanted)}")


def shorten(value, limit=1500):
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def wait_until(condition, what, patience=10):
    """Waits for a condition; the patience is only there to end a test that fails."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(0.01)


def run_tests(scope, finish=None):
    """Runs the tests of `scope` in order of definition, then `finish`; exits 1 when one failed."""
    patterns = os.environ.get("MAYFLY_TEST_FILTER", "*").split("|")
    tests = [(name, item) for name, item in scope.items() if name.startswith("test_") and callable(item)]
    chosen = [(name, test) for name, test in tests if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    print(f"1..{len(chosen)}", flush=True)
    failed = 0
    try:
        for number, (name, test) in enumerate(chosen, 1):
            try:
                test()
                print(f"ok {number} - {name}", flush=True)
            except Skip as reason:
                print(f"ok {number} - {name} # SKIP {reason}", flush=True)
            except Exception:
                failed += 1
                for line in traceback.format_exc().splitlines():
                    print(f"  {line}")
                print(f"not ok {number} - {name}", flush=True)
    finally:
        if finish:
            finish()
    sys.exit(1 if failed else 0)
