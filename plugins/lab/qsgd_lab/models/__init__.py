"""The paper's transformer, with classical attention or with its quantum one."""

from qsgd_lab.models.attention import QuantumAttention
from qsgd_lab.models.feature import Feature, ScoreFeature
from qsgd_lab.models.transformer import EncoderLayer, TextTransformer

__all__ = ["EncoderLayer", "Feature", "QuantumAttention", "ScoreFeature", "TextTransformer"]
