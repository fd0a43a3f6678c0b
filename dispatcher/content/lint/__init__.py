"""The linter of templates: findings with stable codes. Pure.

It runs in `dispatcher templates check` and when somebody approves a template, never when a worker loads templates: loading keeps
the checks that guard sending.
"""
