"""Run a batch of moderations with the unmodified openai SDK: upload a file, create a batch of it, wait, read its output.

OPENAI_API_KEY=gf_... python examples/openai_batch.py http://127.0.0.1:8080/v1
"""

import json
import sys
import time

import openai

TEXTS = ["What is the capital of France?", "Good morning, everyone!"]


def main(base_url: str) -> None:
    """Upload, start, wait, print."""
    client = openai.OpenAI(base_url=base_url)
    lines = [
        {"custom_id": f"text-{i}", "method": "POST", "url": "/v1/moderations", "body": {"model": "any", "input": text}}
        for i, text in enumerate(TEXTS)
    ]
    data = "\n".join(json.dumps(line) for line in lines).encode()
    file = client.files.create(file=("texts.jsonl", data), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/moderations", completion_window="24h")
    while batch.status not in ("completed", "failed", "cancelled", "expired"):
        time.sleep(0.5)
        batch = client.batches.retrieve(batch.id)
    print(f"{batch.id}: {batch.status}")
    if batch.output_file_id:
        for line in client.files.content(batch.output_file_id).text.splitlines():
            answer = json.loads(line)
            print(f"{answer['custom_id']}: flagged {answer['response']['body']['results'][0]['flagged']}")
    if batch.error_file_id:
        print(client.files.content(batch.error_file_id).text)


if __name__ == "__main__":
    main(sys.argv[1])
