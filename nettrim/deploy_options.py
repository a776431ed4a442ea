"""The options of `nettrim-deploy`, as the command line takes and describes them."""

from pathlib import Path
from typing import Annotated

import typer

from nettrim.deployment_inputs import Int16
from nettrim.hybrid import Precision
from nettrim.layer_problem import Constraint
from nettrim.prune import Mode
from nettrim.samples import ImageLayout

ModelArgument = Annotated[
    Path,
    typer.Argument(help="Trained network: .onnx, .tflite, .pt, .pt2, .safetensors, .keras or .h5.", show_default=False),
]
TargetOption = Annotated[str, typer.Option(help="Board; `nettrim boards` lists them.", show_default=False)]
DataOption = Annotated[
    Path | None, typer.Option(help="Calibration samples without labels: .npz with x, or .npy.", show_default=False)
]
TestDataOption = Annotated[
    Path | None, typer.Option(help="Labelled samples to measure accuracy: .npz with x and y.", show_default=False)
]
OutputOption = Annotated[Path | None, typer.Option(help="Folder to write, else <model>-<board>/.", show_default=False)]
SparsityOption = Annotated[
    str | None, typer.Option(metavar="<share>", help="Share of all weights to remove, 0 to 1.", show_default=False)
]
RelativeEpsilonOption = Annotated[
    str | None,
    typer.Option(
        metavar="<share>",
        help="Or: allowed error of each layer's response, a share of its norm.",
        show_default=False,
    ),
]
MaxDropOption = Annotated[
    str | None,
    typer.Option(
        metavar="<share>",
        help="Or: what the deployed network may lose of 1: of accuracy with labels, else of agreement or relative "
        "output error. Default: 0.005 of agreement, 0.02 of relative output error.",
        show_default=False,
    ),
]
FitOption = Annotated[bool, typer.Option("--fit", help="Or: as many weights as the board's flash holds.")]
ModeOption = Annotated[Mode, typer.Option(help="Layers one after the other, or independently.")]
ConstraintOption = Annotated[
    Constraint, typer.Option(help="The convex program: distance to the box, or the inequalities as published.")
]
PlainOption = Annotated[
    bool, typer.Option("--plain", help="Net-Trim as published: no refit, no elimination; with --relative-epsilon.")
]
PolishOption = Annotated[
    bool,
    typer.Option("--polish", help="Then tune the weights that are left, without labels, on the calibration data."),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        help="What the network computes in: int8; on Linux boards also hybrid (floats, weights of dense layers in "
        "int8) or float32."
    ),
]
Int16Option = Annotated[
    Int16,
    typer.Option(help="Activations in int16: those without which a drop is missed, all but input and output, none."),
]
StructureOption = Annotated[
    str, typer.Option(help="What is pruned together: l1 (single weights), 1x4, 1x16, 4x1, columns, neurons or 2:4.")
]
MemoryOption = Annotated[int, typer.Option(min=1, help="MiB that pruning may take; fewer samples are used to fit.")]
InputShapeOption = Annotated[
    str | None, typer.Option(help="Shape of one sample where the file lacks it: 1,28,28.", show_default=False)
]
ArchOption = Annotated[
    str | None,
    typer.Option(help="file.py:factory that makes the torch module of the weights.", show_default=False),
]
TrustPickleOption = Annotated[
    bool, typer.Option("--trust-pickle", help="Open model files that can run any code: trusted ones only.")
]
LabelsOption = Annotated[
    Path | None, typer.Option(help="Class names, one a line; they go into model.tflite.", show_default=False)
]
InputScaleOption = Annotated[float, typer.Option(help="Samples are multiplied by this first.")]
MeanOption = Annotated[
    str | None, typer.Option(help="Then this is subtracted: one value or one a channel.", show_default=False)
]
StdOption = Annotated[
    str | None, typer.Option(help="Then divided by this: one value or one a channel.", show_default=False)
]
InputLayoutOption = Annotated[
    ImageLayout | None, typer.Option(help="How image samples lie, if not as the model.", show_default=False)
]
SeedOption = Annotated[int, typer.Option(min=0, help="Of the held-out split and the drawn patches.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an earlier deployment.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print report.json instead of the table.")]
