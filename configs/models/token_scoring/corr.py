"""What is logged of a selection by anything but the DAM: Corr, and no loss."""

from detectron2.config import LazyCall as L

from sparse_detr.criterion import CorrLog

corr = L(CorrLog)(half_cell_shift=True, surplus_counts="${model.released_behaviour}")
