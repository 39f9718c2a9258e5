"""The sizes of the small models, for models of any system: they train from scratch on a CPU."""

from ..models.backbones.small_resnet import backbone, in_channels
from ..models.small_sparse_detr import model as _small


def shrink(model, out_features):
    """Gives a model the small backbone and the sizes of the small Sparse DETR, and 100 queries.

    Args:
        model: Config of a detector; changed in place.
        out_features: Maps of the backbone that it reads.
    """
    model.backbone = backbone
    model.backbone.out_features = out_features
    model.feature_projection.in_channels = {name: in_channels[name] for name in out_features}
    model.hidden_dim = _small.hidden_dim
    model.encoder.num_layers = _small.encoder.num_layers
    model.encoder.feedforward_dim = _small.encoder.feedforward_dim
    model.encoder.dropout = _small.encoder.dropout
    model.decoder.num_layers = _small.decoder.num_layers
    model.query_selection.num_queries = 100
