"""Run checks side by side, each bounded in time: none holds up or stops another, whatever it waits for or raises."""

import atexit
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from guardfleet.cli.doctor.findings import Caution, Check, Finding, Status
from guardfleet.errors import GuardfleetError

WITHIN_S = 12.0  # for all checks: with the start of Python, a doctor takes less than 15 s
DEFECT = "report this with the line above: it is a defect of guardfleet, or a library that is damaged."
SLOW = "find out what does not answer, or give a slow or busy machine more time: `guardfleet doctor --within 60`."

Chain = Sequence[Check]  # looked at one after the other


class Examination:
    """Chains of checks that run at once, a thread for each."""

    def __init__(self, chains: Sequence[Chain]) -> None:
        self._runs = [_Run(chain) for chain in chains]

    def findings(self, *, within_s: float = WITHIN_S) -> Iterator[Finding]:
        """Start all chains; yield what they found, in their order. What has not answered by then is a failed check."""
        deadline = time.monotonic() + within_s
        for run in self._runs:
            run.start()
        for run in self._runs:
            yield from run.findings(max(0.0, deadline - time.monotonic()), within_s)

    @property
    def is_over(self) -> bool:
        """Whether no thread is left behind in a check that did not end in time."""
        return not any(run.is_running for run in self._runs)

    def leave_with(self, status: int) -> None:
        """End the process with `status` at its end, whatever the threads that are left behind do.

        A thread that waits for a server, or is in the middle of loading a library, could crash an interpreter that ends around it.
        """
        atexit.register(self._leave, status)

    def _leave(self, status: int) -> None:
        if not self.is_over:
            sys.stderr.flush()
            os._exit(status)


class _Run:
    """One chain and its thread."""

    def __init__(self, chain: Chain) -> None:
        self._chain, self._found = chain, list[Finding]()
        self._now: Check | None = None
        self._lock, self._thread = threading.Lock(), threading.Thread(target=self._run, name="doctor", daemon=True)

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def findings(self, wait_s: float, within_s: float) -> list[Finding]:
        self._thread.join(wait_s)
        with self._lock:
            found, late = list(self._found), self._now
        if late is None:
            return found
        why = f"no answer within {within_s:g} s" if self.is_running else "it ended without an answer"
        why = f"{late.slow} took longer than {within_s:g} s" if self.is_running and late.slow else why
        return [*found, Finding.of(late, Status.FAILED, why, SLOW)]

    def _run(self) -> None:
        failed: set[str] = set()
        for check in self._chain:
            if not failed.isdisjoint(check.after):
                failed.add(check.name)
                continue
            with self._lock:
                self._now = check
            finding = looked(check)
            if finding.status is Status.FAILED:
                failed.add(check.name)
            with self._lock:
                self._found.append(finding)
                self._now = None


def looked(check: Check) -> Finding:
    """Look once; whatever is raised becomes a failed check."""
    try:
        said = check.look()
    except GuardfleetError as error:
        return Finding.of(check, Status.FAILED, str(error), getattr(error, "fix", None))
    except Exception as error:  # noqa: BLE001 - a check that cannot be made has not succeeded, and the others are still to come
        first = (str(error).strip().splitlines() or [""])[0]
        return Finding.of(check, Status.FAILED, f"the check itself failed: {type(error).__name__}: {first}".rstrip(": "), DEFECT)
    if isinstance(said, Caution):
        return Finding.of(check, Status.WARNING, said.said, said.fix)
    return Finding.of(check, Status.OK, said)
