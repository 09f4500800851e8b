"""The boundary between users' values and reports: no value that a user passes can make the user's work fail.

Every value passes through one of these functions before it is stored, whichever way it comes in: `text` and `label`
make texts that UTF-8 can encode, `number` keeps finite numbers, `tree` turns any object into JSON, `fit` checks fields
against the protocol's shapes, `operation_id` makes ids. They do no I/O and hold no locks. Each has a limit in time and
size, and calls the user's own code (`__str__`, `__float__`, iterators) only through `attempt`, which catches its
exceptions.

How values that JSON can't hold are converted:

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
| text that is not UTF-8 (lone surrogates) | the text, with each surrogate replaced by `�` |
| an object that contains itself, or nests deeper than 200 levels | a note that replaces it |
| iterator, generator | a note; it is never consumed |
| any other object | its `str()`, cut to 4,096 characters; `<Name>` if its class defines no text |
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
