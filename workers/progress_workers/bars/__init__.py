"""Progress bars people already have, as they are, that report to the current operation as they move.

`from progress_workers.bars.tqdm import tqdm, trange` and `from progress_workers.bars.rich import Progress, track` take
the places of the imports from `tqdm` and `rich.progress`. Outside an operation they are the bars they were.
"""
