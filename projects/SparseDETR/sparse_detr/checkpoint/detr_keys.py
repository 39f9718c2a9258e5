"""Names of the transformer's weights in DETR's released checkpoints and here.

DETR's relatives SMCA and PnP-DETR keep these names and add their own. The backbone has its own map
in :mod:`sparse_detr.backbone`, the same for all of them.
"""

from __future__ import annotations

from .key_table import KeyTable

DETR = KeyTable(
    (
        ("input_proj.", "feature_projection.projections.0.0."),
        ("backbone.1.row_embed.", "position_embedding.row_embed."),
        ("backbone.1.col_embed.", "position_embedding.col_embed."),
        ("transformer.encoder.layers.{i}.linear", "encoder.layers.{i}.ffn.linear"),
        ("transformer.encoder.", "encoder."),
        ("transformer.decoder.layers.{i}.linear", "decoder.layers.{i}.ffn.linear"),
        ("transformer.decoder.layers.{i}.multihead_attn.", "decoder.layers.{i}.cross_attn."),
        # DETR numbers the norms in order, Deformable DETR and this project by age.
        ("transformer.decoder.layers.{i}.norm1.", "decoder.layers.{i}.norm2."),
        ("transformer.decoder.layers.{i}.norm2.", "decoder.layers.{i}.norm1."),
        ("transformer.decoder.", "decoder."),
        ("class_embed.", "heads.stages.0.class_embed."),
        ("bbox_embed.", "heads.stages.0.bbox_embed."),
        ("query_embed.", "query_selection.query_embed."),
    )
)
"""DETR and DETR-DC5, with sine or learned positions, post-norm or pre-norm."""
