"""What each operation answers, as models: the OpenAPI is made of them, and tests hold every answer to it. No answer is built here.

Answers are rendered by `api/openai`, `guardfleet/verdicts` and the routes, which are faster than a model; a member that they add
or drop without these is a failing test.
"""
