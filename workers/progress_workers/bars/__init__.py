"""Existing progress bars, unchanged, that also report to the current operation.

Replace the imports from `tqdm` and `rich.progress` by `from progress_workers.bars.tqdm import tqdm, trange` and `from
progress_workers.bars.rich import Progress, track`. Outside an operation they work as the original bars.
"""
