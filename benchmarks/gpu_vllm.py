"""Time vLLM with prefix caching on the prompts in a model's folder: FOLDER ANSWER_TOKENS."""

import json
import pathlib
import sys
import time

WARM_UP = 64  # prompts


def main() -> None:
    """Measure, and print one JSON as the last line."""
    from vllm import LLM, SamplingParams  # noqa: PLC0415 - its workers import this file again

    folder, tokens = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    prompts = [{"prompt_token_ids": ids} for ids in json.loads((folder / "ids.json").read_text())]
    started = time.perf_counter()
    engine = LLM(str(folder), skip_tokenizer_init=True, dtype="bfloat16", max_model_len=8192, enable_prefix_caching=True)
    sampling = SamplingParams(max_tokens=tokens, min_tokens=tokens, ignore_eos=True, temperature=0, detokenize=False)
    engine.generate(prompts[:WARM_UP], sampling, use_tqdm=False)
    set_up = time.perf_counter() - started
    started = time.perf_counter()
    engine.generate(prompts, sampling, use_tqdm=False)
    seconds = time.perf_counter() - started
    print(json.dumps({"texts_s": len(prompts) / seconds, "texts": len(prompts), "set_up_s": set_up}))


if __name__ == "__main__":
    main()
