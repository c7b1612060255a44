"""What an edit will touch, before it is made.

`trace` finds the nodes of an edit as the edit itself finds them; `overlap` says how much the paths of several facts
have in common; `document`, `text` and `picture` show both.
"""
