"""The boundary between users' values and what is reported: nothing a user hands over fails the user's work here.

Every value passes one of these functions before it is kept, whichever way it comes in: `text` and `label` make texts
that UTF-8 can hold, `number` keeps finite numbers, `tree` makes JSON of any object, `fit` holds fields to the
protocol's shapes, `operation_id` makes ids. They do no I/O and hold no locks. Each is bounded in time and size, and
calls the user's own code (`__str__`, `__float__`, iterators) by `attempt` only, which keeps what that raises.

What becomes of values that JSON can't hold:

| value | becomes |
|---|---|
| dataclass, Pydantic model, mapping | an object; keys become texts |
| tuple, set, deque, range, NumPy array and the like | a list |
| datetime, date, time, timedelta, UUID, path, Decimal, IP address | a text, as Pydantic writes it |
| enum member | its value |
| NumPy scalar and the like | a number, text or boolean |
| NaN and infinities | `"NaN"`, `"Infinity"`, `"-Infinity"` |
| integer beyond 64 bits | its digits |
| bytes | the text, if they are UTF-8; otherwise their number and the first few |
| text that is not UTF-8 (lone surrogates) | the text with `�` in their place |
| an object that contains itself, or nests deeper than 200 levels | a note in its place |
| iterator, generator | a note; it is never consumed |
| any other object | its `str()`, cut to 4,096 characters; `<Name>` if it has no text of its own |
"""

from progress_workers.values.guard import attempt, let_pass
from progress_workers.values.ids import fitted, operation_id
from progress_workers.values.numbers import LARGEST, number
from progress_workers.values.shapes import fit
from progress_workers.values.texts import MAX_CHARS, brief, label, text, type_name
from progress_workers.values.trees import Tree, pairs, tree

__all__ = [
    "LARGEST",
    "MAX_CHARS",
    "Tree",
    "attempt",
    "brief",
    "fit",
    "fitted",
    "label",
    "let_pass",
    "number",
    "operation_id",
    "pairs",
    "text",
    "tree",
    "type_name",
]
