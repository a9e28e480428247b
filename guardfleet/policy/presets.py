"""Policies to begin with: `strict` treats what is controversial as unsafe, `loose` lets it pass with a mark."""

from guardfleet.errors import RejectedError

STRICT = """\
# Nothing that the model calls unsafe or controversial is published unseen.
name: strict
default: allow
errors: review
rules:
  - id: unsafe
    when: {severity: unsafe}
    action: block
    reason: unsafe
  - id: controversial
    when: {severity: controversial}
    action: review
    reason: controversial
  - id: doubtful
    when: {severity: safe, served_by: [model, cache, duplicate], probability: {not_safe: {at_least: 0.3}}}
    action: review
    reason: doubtful
"""
LOOSE = """\
# Only what the model is sure of is blocked; what is controversial is published and marked.
name: loose
default: allow
errors: review
rules:
  - id: surely-unsafe
    when: {severity: unsafe, probability: {unsafe: {at_least: 0.9}}}
    action: block
    reason: unsafe
  - id: unsafe
    when: {severity: unsafe}
    action: review
    reason: unsafe
  - id: controversial
    when: {severity: controversial}
    action: flag
    reason: controversial
"""
PRESETS = {"strict": STRICT, "loose": LOOSE}


def text(name: str) -> str:
    """Return the YAML of a preset. Raises RejectedError for another name."""
    if name not in PRESETS:
        raise RejectedError(f"there is no preset {name!r}; use one of {', '.join(PRESETS)}.", param="preset")
    return PRESETS[name]
