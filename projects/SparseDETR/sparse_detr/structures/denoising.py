"""Which queries are denoising queries, and which object each of them answers for.

Role in the flow: made by query selection in training, read by the decoder (who sees whom) and by
the criterion (fixed assignment). Everything follows from numbers that the host knows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DenoisingRows:
    """The rows that stand in front of the matching queries while training.

    A group holds two copies of the slots of an image: positives, then negatives. An image has as
    many slots as the image of the batch with most objects; slots beyond its own objects are unused.

    Attributes:
        counts: B numbers of objects.
        groups: Groups G, each with all objects once as positive and once as negative.
        unused_rows_seen: True lets queries see unused slots, and counts these as background.
    """

    counts: tuple[int, ...]
    groups: int
    unused_rows_seen: bool = False

    @property
    def slots(self) -> int:
        """Slots S of an image in each half of a group."""
        return max(self.counts, default=0)

    @property
    def rows(self) -> int:
        """Rows P = 2 * S * G of every image."""
        return 2 * self.slots * self.groups

    def used(self, device: torch.device) -> Tensor | None:
        """(B, P) bool, True on slots that hold an object; None where all do, or all are taken."""
        if self.unused_rows_seen or len(set(self.counts)) <= 1:
            return None
        slot = torch.arange(self.slots) < torch.tensor(self.counts)[:, None]
        return slot.repeat(1, 2 * self.groups).to(device)

    def visible(self, num_queries: int, device: torch.device) -> Tensor:
        """(P + Q, P + Q) bool, True where the query of a row may see that of a column.

        Groups do not see each other, and matching queries, who have to do without at inference, see
        none of them; denoising queries see the matching ones.

        Args:
            num_queries: Matching queries Q.
            device: Where it is wanted.

        Source: DN-DETR, section 4.4; released code of DINO for what denoising queries see.
        """
        group = torch.arange(self.rows, device=device) // max(1, 2 * self.slots)
        group = torch.cat([group, group.new_full((num_queries,), -1)])
        return (group[:, None] == group[None]) | (group[None] == -1)

    def assignment(self) -> Tensor:
        """(4, M) int64 on the host: image, row, object of the image, object of the batch.

        One column for every positive slot of every group, image after image, rows ascending.
        """
        columns = []
        first = 0
        for image, count in enumerate(self.counts):
            group = torch.arange(self.groups)[:, None].expand(-1, count)
            found = torch.arange(count).expand(self.groups, -1)
            row = group * (2 * self.slots) + found
            parts = (torch.full_like(row, image), row, found, found + first)
            columns.append(torch.stack([part.flatten() for part in parts]))
            first += count
        return torch.cat(columns, dim=1)
