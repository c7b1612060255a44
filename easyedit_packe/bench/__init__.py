"""The comparison of editors.

`settings` say what a run is, `plan` makes a protocol of it, `runner` runs it: `session` is one editor at work on one
model, `measure` and `metrics` what is measured, `folder` and `store` where rows go, `unedited` the model before.
`report` makes tables of rows, `archive` one file of many. `editors` and `data` are what can be compared, and on what.
"""
