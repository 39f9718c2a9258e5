"""The toy config with the toy on a narrow ResNet whose stem and first stage are frozen."""

from detectron2.config import LazyCall as L

# Run before the model's name is looked up, which this import makes possible.
from .toy_config import data, dataloader, optimizer, schedule, train

model = L("toy.ToyOnResNet")(num_classes="auto", freeze_at=2)

__all__ = ["data", "dataloader", "model", "optimizer", "schedule", "train"]
