"""`edgehmn tune`: search for the parameters of the plasticity rule that learn a text best, for an export that has them.

`search` says what is searched and how it is judged, `spsa`, `random_search` and `evolution` are the methods,
`parameters` the space, `objective` the loss, `tune` the whole, `written` the new export.
"""
