# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Learning to tell male from female in a picture of a face
#
# From an archive with `male/` and `female/` pictures to a trained network that answers for new
# pictures: read, split, look at what the network sees, train, judge, use. Every step is one call
# of the package `facegender`; its settings stand in a *recipe*, a TOML file in `recipes/`.
#
# The answer is a guess at the label that people would give, not a fact about a person.
#
# Install everything that this notebook needs, once, in this folder:
#
# ```
# pip install -c constraints.txt -e ".[dev]"
# ```

# %% [markdown]
# ## Settings
#
# | name | what |
# | --- | --- |
# | `ARCHIVES` | archives (`.tar`, `.tar.gz`, `.zip`) or folders with `male/` and `female/` inside |
# | `TABLE` | a CSV file that says more of each picture (person, source, age), or `None` |
# | `RECIPE` | `"classic"`: ResNet-18, 224 px, grey, turns up to 45 degrees; `"quick"`: minutes on a CPU; or a TOML file |
# | `OUTPUT` | the run's folder; a run is never written over, so name a new one each time |
# | `START` | starting weights: `None` takes the recipe's own (`classic` downloads ImageNet weights), `"none"` starts from random ones, a path reads a file |
# | `EPOCHS` | `None` takes the recipe's own number |
# | `FACES` | a folder of portraits to look at and to answer for: no picture of `ARCHIVES` is shown here |
#
# An environment variable of the same name after `FACEGENDER_` sets each of them as well; several
# archives are parted as in `PATH`.

# %% tags=["parameters"]
import os

ARCHIVES = os.environ.get("FACEGENDER_ARCHIVES", "internship_data.tar.gz").split(os.pathsep)
TABLE = os.environ.get("FACEGENDER_TABLE") or None
RECIPE = os.environ.get("FACEGENDER_RECIPE") or "classic"
OUTPUT = os.environ.get("FACEGENDER_OUTPUT") or "runs/notebook"
START = os.environ.get("FACEGENDER_START") or None
EPOCHS = int(os.environ.get("FACEGENDER_EPOCHS") or 0) or None
FACES = os.environ.get("FACEGENDER_FACES") or "faces"

# %%
import warnings

# tqdm, which a library loads, misses a widget that nothing here uses.
warnings.filterwarnings("ignore", message="IProgress not found")

# %%
import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from facegender import Classifier, predict_folder
from facegender.training.data.augmentation import augment, denormalise, normalise, random_numbers
from facegender.training.evaluation.robustness import choose, robustness
from facegender.training.evaluation.predictions_table import read_scores
from facegender.training.console import Console
from facegender.training.recipe import read_recipe, with_changes
from facegender.training.train import train
from facegender.training.run_folder import Request
from facegender.training.data.samples import Sample
from facegender.training.data.split import assign_parts
from facegender.training.data.image_cache import open_store, store_folder, store_in_memory

recipe = with_changes(read_recipe(RECIPE), epochs=EPOCHS, seed=None)
run = Path(OUTPUT)
print(f"{recipe.name}: {recipe.network.name} at {recipe.input.height} px")
print("epochs:", recipe.fit.epochs)

# %% [markdown]
# ## Read the archive
#
# Each picture is decoded once, brought to the network's size, and kept in a *store* beside the
# run folder; the next run on the same archive finds it there.

# %%
store = open_store(
    [Path(archive) for archive in ARCHIVES],
    Path(TABLE) if TABLE else None,
    recipe.input.framer,
    store_folder(run),
)
print(f"{len(store.samples):,} pictures, {sum(map(bool, store.errors)):,} of them unreadable")
for (source, label), count in sorted(Counter((s.source, s.label) for s in store.samples).items()):
    print(f"{source or 'no source':<12}{label:<8}{count:>8,}")

# %% [markdown]
# ## Split 80/20
#
# A share of 0.2 of the pictures is kept for validation, as much of each label and source. Exact
# copies stay on one side, and so do all pictures of one person where `TABLE` names persons:
# a network judged on faces that it has learned by heart looks better than it is. `train` below
# makes this same split again, from the same seed, and writes it to `split.csv`.
#
# On the command line `train` looks for near copies, too, and for labels that are probably wrong, before
# it splits ([audit](docs/audit.md)); here that is left out, so that this is the split it uses.

# %%
split = assign_parts(
    store.samples, store.digests, seed=recipe.fit.seed, validation=0.2, errors=store.errors
)
for (part, label), count in sorted(Counter((row.part, row.sample.label) for row in split).items()):
    print(f"{part or 'unreadable':<12}{label:<8}{count:>8,}")

# %% [markdown]
# ## What the network sees
#
# Training pictures are changed at random every time they are shown, and then normalised: the
# mean is taken away and the rest divided by the spread. To look at them, the normalisation is
# undone. Above: the portraits of `FACES` without turns; below: turned as the recipe says.

# %%
training = np.array([row for row, item in enumerate(split) if item.part == "train"])
portraits = sorted(Path(FACES).glob("*.jpg"))
shown = store_in_memory(
    [(Sample("", path.name, "male"), path.read_bytes()) for path in portraits],
    recipe.input.framer,
)
pixels, frames = torch.from_numpy(shown.wide), torch.from_numpy(shown.frames)
numbers = torch.from_numpy(random_numbers(recipe.fit.seed, 0, np.arange(len(pixels))))
size = recipe.input.height, recipe.input.width
ways = {
    "without turns": replace(recipe.augment, turn_degrees=0.0, tilt_degrees=0.0),
    f"turns up to {recipe.augment.turn_degrees:g} degrees": recipe.augment,
}

figure, axes = plt.subplots(2, len(pixels), figsize=(1.6 * len(pixels), 3.8), squeeze=False)
for row, (name, options) in enumerate(ways.items()):
    changed = augment(pixels, numbers, options, frames=frames, size=size, grey=recipe.input.grey)
    batch = normalise(changed, recipe.input)
    for axis, picture in zip(axes[row], denormalise(batch, recipe.input), strict=True):
        axis.imshow(picture)
        axis.set_axis_off()
    axes[row, 0].text(0, -0.12, name, transform=axes[row, 0].transAxes, va="top")
plt.show()
print("the batch as the network gets it:", tuple(batch.shape), batch.dtype)

# %% [markdown]
# ## Train
#
# One call reads the store, trains, keeps the best epoch, calibrates, exports the model file
# and measures it. Where ImageNet weights cannot be downloaded, set `START = "none"`. A run that
# was stopped goes on with `train(None, None, run, resume=True)`.

# %%
request = Request(inputs=tuple(ARCHIVES), table=TABLE, start=START, devices=1, audit="")
metrics = train(request, recipe, run, console=Console(quiet=True))
print(*sorted(path.name for path in run.iterdir()), sep="\n")

# %% [markdown]
# ## How it went
#
# Validation accuracy is right answers over validation pictures, counted picture by picture. An
# earlier form of this notebook divided the right answers of the validation loader by the length of
# the training loader. What that gives stands below the curves.

# %%
history = np.atleast_1d(np.genfromtxt(run / "history.csv", delimiter=",", names=True))
epochs = history["epoch"] + 1
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5))
for axis, name in ((left, "loss"), (right, "accuracy")):
    axis.plot(epochs, history[name], "o-", label="training (changed pictures)")
    axis.plot(epochs, history[f"validation_{name}"], "o-", label="validation")
    axis.set(xlabel="epoch", ylabel=name)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend()
plt.show()

judged = metrics["validation"]["accuracy"]
batches = -(-len(training) // recipe.fit.batch)
print(f"right answers over validation pictures: {judged['correct']:,} of {judged['count']:,}")
print(f"  that is {judged['share']:.2%}, the accuracy")
print(f"over the {len(training):,} training pictures: {judged['correct'] / len(training):.2%}")
print(f"over the {batches:,} training batches: {judged['correct'] / batches:.2f}")

# %% [markdown]
# Only the first is an accuracy: what is counted and what it is divided by are the same pictures.
# The second cannot pass a quarter when a fifth of the pictures is kept for validation, however good
# the network is, and the third is no share at all. Nothing warns of either: each is a number that
# rises while the network learns.

# %% [markdown]
# ## How good, and for whom
#
# The figures are those of the exported file, on validation, with their counts and 95 %
# intervals. A group of few pictures has a wide interval: it says little.

# %%
def describe(name, share):
    """Print one line of the table."""
    low, high = share["interval"]
    counts = f"{share['correct']:>8,} of {share['count']:>8,}"
    print(f"{name:<28}{counts}{share['share']:>9.1%}  ({low:.1%} to {high:.1%})")


measured = metrics["validation"]
describe("all", measured["accuracy"])
for label, share in measured["recall"].items():
    describe(label, share)
for source, group in measured.get("sources", {}).items():
    describe(source, group["accuracy"])
    for label, share in group["recall"].items():
        describe(f"  {label}", share)

# %% [markdown]
# Is the network as sure as it is right? The answers are put into ten bins of equal count by
# their probability; on the line, a probability of 80 % is right in 80 of 100 cases.

# %%
with (run / "scores.csv").open(encoding="utf-8", newline="") as file:
    scores = [row for row in csv.DictReader(file) if row["part"] == "validation"]
p_male = np.array([float(row["p_male"]) for row in scores])
certainty = np.maximum(p_male, 1 - p_male)
correct = (p_male > 0.5) == np.array([row["label"] == "male" for row in scores])
bins = [part for part in np.array_split(np.argsort(certainty), 10) if len(part)]

figure, axis = plt.subplots(figsize=(4.5, 4.5))
axis.plot([0.5, 1], [0.5, 1], color="grey", linewidth=1)
axis.plot([certainty[b].mean() for b in bins], [correct[b].mean() for b in bins], "o-")
axis.set(xlabel="probability of the answer", ylabel="share of right answers")
plt.show()
print(f"calibration error {measured['calibration_error']:.2%} over {len(scores):,} pictures")

# %% [markdown]
# ## Turned faces
#
# An earlier form of this notebook had to choose: 90 % without turns in training, 80 % with them. It
# need not be so: a start from a network that knows faces, turns in a share of the pictures only, and
# a face that is turned upright by its landmarks where the recipe's crop is `aligned`. The same network
# is asked about validation pictures as they are, and turned by 15, 30 and 45 degrees.
#
# The run stored here is `quick`, which takes pictures whole: at 45 degrees it loses some points. The network
# that ships takes a turned crop anew and loses 0.6 points ([model card](MODEL_CARD.md#made-worse)).
#
# `classic` itself, on a fifth of the data, from random weights and after five
# epochs, told 65.49 % of 2,817 validation pictures right without turns in training and 63.37 % with them;
# on the same pictures `quick` has 95.71 %, and `best`, which learned from all of the data, 97.30 %, both with
# turns ([README](README.md#learn-from-your-own-pictures)).

# %%
classifier = Classifier.load(OUTPUT)
asked = choose(read_scores(run).of_part("validation"), 300)
worse = robustness(classifier, [Path(archive) for archive in ARCHIVES], asked)
describe("upright", worse["clean"])
for point in worse["turn"]["points"]:
    describe(f"turned by {point['at']:g} degrees", point["accuracy"])

# %% [markdown]
# ## Use it
#
# The run folder holds the model file, and `predict_folder` answers with it for a folder of photos,
# as `facegender predict` does.

# %%
answers = [row for row in predict_folder(FACES, classifier=classifier) if row.label]
columns = max(1, len(answers))
figure, axes = plt.subplots(1, columns, figsize=(1.6 * columns, 2.4), squeeze=False)
for axis, row in zip(axes[0], answers, strict=False):
    axis.imshow(plt.imread(Path(FACES) / row.file))
    axis.set_title(f"{row.label} {row.probability:.0%}", fontsize=8)
    axis.set_axis_off()
plt.show()

# %% [markdown]
# ## The same from the command line
#
# ```
# facegender train internship_data.tar.gz --recipe classic --output runs/notebook
# facegender predict faces --model runs/notebook
# ```
#
# The second command answers for every picture in the folder `faces` and writes
# `process_results.json`: `{"photo.jpg": "male", ...}`.
