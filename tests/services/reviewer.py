"""A reviewer as a process of its own: signs in, and sends the forms of the console's pages for as long as it is let.

`python -m tests.services.reviewer URL QUEUE SEED`, with the key on standard input. It writes `held TASK` when it has read a
text and `said TASK LABEL` once the answer to its form is there, so that whoever kills it knows what it was promised.
"""

import random
import re
import sys
import time

import httpx2

from tests.services.patience import patience

LABELS = ("safe", "controversial", "unsafe")
CSRF = re.compile(r'name="csrf" value="([0-9a-f]+)"')
HIDDEN = re.compile(r'name="(task|token)" value="(\d+)"')
TEXT = re.compile(r">text (\d+)</pre>")
DIFFERS = 0.15  # of answers, from what the text is


def tell(*words: str) -> None:
    """Write a line, at once."""
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def main(url: str, queue: str, seed: str) -> None:
    """Review until the process is ended."""
    rng, base = random.Random(seed), f"/console/review/{queue}"
    with httpx2.Client(base_url=url, timeout=patience(60), follow_redirects=True) as client:
        client.post("/console/sign-in", data={"key": sys.stdin.readline().strip()}).raise_for_status()
        page = client.get("/console/review").text
        while True:
            found = TEXT.search(page)
            if found is None:  # nothing waits, or everything is held by others
                time.sleep(0.2)
                page = client.post(f"{base}/next", data={"csrf": CSRF.search(page).group(1)}).text
                continue
            fields = dict(HIDDEN.findall(page.partition(f'action="{base}/decide"')[2].partition("</form>")[0]))
            tell("held", fields["task"])
            label = rng.choice(LABELS) if rng.random() < DIFFERS else LABELS[int(found.group(1)) % 3]
            answer = client.post(f"{base}/decide", data={**fields, "csrf": CSRF.search(page).group(1), "label": label})
            answer.raise_for_status()
            if "done=" not in str(answer.url):
                tell("said", fields["task"], label)
            page = answer.text


if __name__ == "__main__":
    main(*sys.argv[1:])
