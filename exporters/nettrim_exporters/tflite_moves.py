"""Operators that take their geometry as constant integer tensors in a .tflite file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

from nettrim_exporters.flatbuffer_tables import Fields
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.ops import Mean, Move, NearestRule, Pad, ResizeNearest, Slice, Transpose

Code = schema.BuiltinOperator
Options = schema.BuiltinOptions

BATCH_AXIS_BIT = 1  # of begin_mask and end_mask: whatever the batch size, all of it


@dataclass(frozen=True, eq=False)
class Geometry:
    """How TFLite writes an operator: with the batch axis in front.

    Attributes
    ----------
    constants : Mapping
        int32 inputs behind the activation, by what they are called.
    lowest_version : int
        The version that this geometry needs whatever the type.
    """

    code: Code
    constants: Mapping[str, list[int] | list[list[int]]]
    options_type: Options = Options.NONE
    options: Fields = field(default_factory=dict)
    lowest_version: int = 1


def geometry(op: Move | Mean) -> Geometry:
    """Return an operator's form in the file (versions: op_version.cc beside the schema)."""
    match op:
        case Pad():
            pairs = [[0, 0], *map(list, zip(op.before, op.after, strict=True))]
            return Geometry(Code.PAD, {"paddings": pairs}, Options.PAD)
        case Slice():
            masks = (schema.StridedSliceOptions.BEGIN_MASK, schema.StridedSliceOptions.END_MASK)
            bounds = {"begin": [0, *op.begin], "end": [1, *op.end], "strides": [1, *op.stride]}
            version = 4 if len(op.begin) > 3 else 1
            return Geometry(
                Code.STRIDED_SLICE, bounds, Options.STRIDED_SLICE, dict.fromkeys(masks, BATCH_AXIS_BIT), version
            )
        case Transpose():
            order = [0, *(axis + 1 for axis in op.permutation)]
            version = {5: 4, 6: 6}.get(len(order), 1)
            return Geometry(Code.TRANSPOSE, {"permutation": order}, Options.TRANSPOSE, lowest_version=version)
        case ResizeNearest():
            flags: Fields = {
                schema.ResizeNearestNeighborOptions.ALIGN_CORNERS: op.rule is NearestRule.ALIGN_CORNERS,
                schema.ResizeNearestNeighborOptions.HALF_PIXEL_CENTERS: op.rule is NearestRule.HALF_PIXEL_CENTERS,
            }
            version = 1 if op.rule is NearestRule.ASYMMETRIC else 3
            return Geometry(
                Code.RESIZE_NEAREST_NEIGHBOR, {"size": [*op.size]}, Options.RESIZE_NEAREST_NEIGHBOR, flags, version
            )
        case Mean():
            axes = [axis + 1 for axis in op.axes]
            return Geometry(Code.MEAN, {"axes": axes}, Options.REDUCER, {schema.ReducerOptions.KEEP_DIMS: op.keep_dims})
        case _:
            assert_never(op)
