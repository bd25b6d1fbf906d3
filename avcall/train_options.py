"""The options of `avcall train`, as types: grouped as its help shows them."""

from pathlib import Path
from typing import Annotated

import typer

LENGTH, MACHINE, OPTIMISER = "How long", "Machine", "Optimiser"
WEIGHTS, ABLATION = "Beginning and best weights", "Ablation: each leaves something out"


def _option(
    help_: str, panel: str, *names: str, minimum: float | None = None, maximum: float | None = None
) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        *names, help=help_, rich_help_panel=panel, min=minimum, max=maximum
    )
    return option


Hours = Annotated[float, _option("Stop after this time.", LENGTH)]
Steps = Annotated[int | None, _option("Stop at this step, if that is sooner.", LENGTH, minimum=1)]
Resume = Annotated[bool, _option("Go on with the run that lies in --out.", LENGTH, "--resume")]
GrowAt = Annotated[int, _option("Step at which pictures grow from 128 to 256 pixels.", LENGTH, minimum=0)]

Start = Annotated[
    Path | None,
    _option("Begin with these weights (a safetensors file, best.pt or checkpoint.pt).", WEIGHTS),
]
Validate = Annotated[
    Path | None,
    _option("Prepared clips of other people: the best weights by PSNR on them go to best.pt.", WEIGHTS),
]

Batch = Annotated[int, _option("Pairs a step, in each process.", OPTIMISER, minimum=2)]
LearningRate = Annotated[float, _option("Of Adam.", OPTIMISER, minimum=0.0)]
DecayFrom = Annotated[
    int | None, _option("Step from which the learning rate falls, along half a cosine.", OPTIMISER)
]
DecayTo = Annotated[int | None, _option("Step at which it has fallen to 2 %.", OPTIMISER)]
Ema = Annotated[
    float,
    _option("Decay of the averaged weights, which are exported.", OPTIMISER, minimum=0.0, maximum=0.99999),
]
Seed = Annotated[int, _option("Of everything random.", OPTIMISER, minimum=0)]
AdversarialFrom = Annotated[
    int | None, _option("Step at which the discriminator joins.", OPTIMISER, minimum=0)
]
PerceptualEvery = Annotated[
    int,
    _option("Steps from one perceptual loss, the dearest, to the next.", OPTIMISER, minimum=1),
]
JudgedPx = Annotated[
    int,
    _option("Side of the crops that the dear losses are taken of.", OPTIMISER, minimum=64, maximum=256),
]
HoldKeypoints = Annotated[
    int | None,
    _option("Step to which four keypoints are held beside the face; default: always.", OPTIMISER, minimum=0),
]
MotionOnly = Annotated[
    bool,
    _option(
        "Train detector and dense motion alone: nothing is generated; a step takes a third of the time.",
        OPTIMISER,
        "--motion-only",
    ),
]
PictureOnly = Annotated[
    bool,
    _option("Train the rest alone: detector and dense motion stay.", OPTIMISER, "--picture-only"),
]
Loss = Annotated[
    list[str] | None,
    _option("Another weight of a loss, as NAME=WEIGHT (docs/model.md); may be repeated.", OPTIMISER),
]

Accelerator = Annotated[str, _option("auto, cpu or cuda.", MACHINE)]
Devices = Annotated[int, _option("GPUs (or CPU processes) that train as one.", MACHINE, minimum=1)]
Workers = Annotated[
    int | None,
    _option(
        "Processes that make pairs, for each device; 0: none of their own. Default: all cores but one.",
        MACHINE,
        minimum=0,
        maximum=256,
    ),
]
Precision = Annotated[str, _option("32-true or bf16-mixed.", MACHINE)]

Without = Annotated[str, _option("Of audio,mesh,identity: rows of the paper's Table 3.", ABLATION)]
NoGuidedFlow = Annotated[
    bool, _option("Landmarks guide neither flow nor masks nor keypoints.", ABLATION, "--no-guided-flow")
]
NoOpticalFlow = Annotated[
    bool, _option("No classical optical flow teaches the network's.", ABLATION, "--no-optical-flow")
]
PlainRegions = Annotated[bool, _option("Mouth and eyes count like any place.", ABLATION, "--plain-regions")]
NoTellingFrames = Annotated[
    bool, _option("Closed eyes and wide mouths come as often as they are.", ABLATION, "--no-telling-frames")
]
NoDropout = Annotated[bool, _option("Speech, mesh and mask are never missing.", ABLATION, "--no-dropout")]
