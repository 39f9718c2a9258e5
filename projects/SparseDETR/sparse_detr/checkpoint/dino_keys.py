"""Names of the weights of DINO, in files of detrex, in files of its authors, and here."""

from __future__ import annotations

from .key_table import KeyTable

# What detrex's DINO shares with detectors that are built on it.
DETREX_COMMON = KeyTable(
    (
        ("backbone.", "backbone."),
        # First: on the way back, what is no extra convolution is one of the three others.
        ("neck.extra_convs.{i}.conv.", "feature_projection.projections.{i+3}.0."),
        ("neck.extra_convs.{i}.norm.", "feature_projection.projections.{i+3}.1."),
        ("neck.convs.{i}.conv.", "feature_projection.projections.{i}.0."),
        ("neck.convs.{i}.norm.", "feature_projection.projections.{i}.1."),
        ("transformer.level_embeds", "position_embedding.level_embed"),
        ("transformer.tgt_embed.", "query_selection.content."),
        ("transformer.enc_output.", "proposal_projection.projection."),
        ("transformer.enc_output_norm.", "proposal_projection.norm."),
        ("transformer.decoder.layers.{i}.attentions.0.attn.", "decoder.layers.{i}.self_attn."),
        ("transformer.decoder.layers.{i}.attentions.1.", "decoder.layers.{i}.cross_attn."),
        ("transformer.decoder.layers.{i}.norms.0.", "decoder.layers.{i}.norm2."),
        ("transformer.decoder.layers.{i}.norms.1.", "decoder.layers.{i}.norm1."),
        ("transformer.decoder.layers.{i}.norms.2.", "decoder.layers.{i}.norm3."),
        ("transformer.decoder.layers.{i}.ffns.0.layers.0.0.", "decoder.layers.{i}.ffn.linear1."),
        ("transformer.decoder.layers.{i}.ffns.0.layers.1.", "decoder.layers.{i}.ffn.linear2."),
        ("transformer.decoder.ref_point_head.", "decoder.reference_position.mlp."),
        ("transformer.decoder.norm.", "decoder.norm."),
        ("transformer.encoder.layers.{i}.norms.0.", "encoder.layers.{i}.norm1."),
        ("transformer.encoder.layers.{i}.norms.1.", "encoder.layers.{i}.norm2."),
        ("transformer.encoder.layers.{i}.ffns.0.layers.0.0.", "encoder.layers.{i}.ffn.linear1."),
        ("transformer.encoder.layers.{i}.ffns.0.layers.1.", "encoder.layers.{i}.ffn.linear2."),
        ("class_embed.{i}.", "heads.stages.{i}.class_embed."),
        ("bbox_embed.{i}.", "heads.stages.{i}.bbox_embed."),
        ("label_enc.", "query_selection.denoising.label_embedding."),
    )
)

DETREX = DETREX_COMMON + KeyTable(
    (("transformer.encoder.layers.{i}.attentions.0.", "encoder.layers.{i}.self_attn."),)
)
"""DINO as detrex trains it."""

ORIGINAL = KeyTable(
    (
        ("input_proj.{i}.", "feature_projection.projections.{i}."),
        ("transformer.level_embed", "position_embedding.level_embed"),
        ("transformer.tgt_embed.", "query_selection.content."),
        ("transformer.enc_output.", "proposal_projection.projection."),
        ("transformer.enc_output_norm.", "proposal_projection.norm."),
        # As in Deformable DETR the norms are numbered by age, here and there.
        ("transformer.encoder.layers.{i}.linear", "encoder.layers.{i}.ffn.linear"),
        ("transformer.encoder.", "encoder."),
        ("transformer.decoder.layers.{i}.linear", "decoder.layers.{i}.ffn.linear"),
        ("transformer.decoder.ref_point_head.", "decoder.reference_position.mlp."),
        ("transformer.decoder.", "decoder."),
        ("transformer.enc_out_class_embed.", "heads.stages.6.class_embed."),
        ("transformer.enc_out_bbox_embed.", "heads.stages.6.bbox_embed."),
        ("class_embed.{i}.", "heads.stages.{i}.class_embed."),
        ("bbox_embed.{i}.", "heads.stages.{i}.bbox_embed."),
        ("label_enc.", "query_selection.denoising.label_embedding."),
    )
)
"""DINO as its authors train it: six decoder layers, whose heads are copies of each other."""
