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
# # Training a network that classifies faces as male or female
#
# From an archive with `male/` and `female/` images to a trained network that classifies new images:
# read, split, look at what the network is given, train, evaluate, predict. Every step is one call of
# the package `facegender`; all settings are in a *recipe*, a TOML file in `recipes/`.
#
# The answer is a guess at the label that people would give, not a fact about a person.
#
# Install everything that this notebook needs once, in this folder:
#
# ```
# pip install -c constraints.txt -e ".[dev]"
# ```

# %% [markdown]
# ## Settings
#
# | name | meaning |
# | --- | --- |
# | `ARCHIVES` | archives (`.tar`, `.tar.gz`, `.zip`) or folders with `male/` and `female/` inside |
# | `METADATA` | a CSV file with the person, source and age of images, or `None` |
# | `RECIPE` | `"classic"`: ResNet-18, 224 px, grayscale, rotation up to 45 degrees; `"quick"`: minutes on a CPU; or a TOML file |
# | `OUTPUT` | the run folder; a run is never overwritten, so name a new one each time |
# | `PRETRAINED` | initial weights: `None` takes the recipe's (`classic` downloads ImageNet weights), `"none"` takes random ones, a path reads a file |
# | `EPOCHS` | `None` takes the recipe's number |
# | `FACES` | a folder of portraits that are shown and classified: no image of `ARCHIVES` is shown here |
#
# Each can also be set by an environment variable of the same name after `FACEGENDER_`; several
# archives are separated as in `PATH`.

# %% tags=["parameters"]
import os

ARCHIVES = os.environ.get("FACEGENDER_ARCHIVES", "internship_data.tar.gz").split(os.pathsep)
METADATA = os.environ.get("FACEGENDER_METADATA") or None
RECIPE = os.environ.get("FACEGENDER_RECIPE") or "classic"
OUTPUT = os.environ.get("FACEGENDER_OUTPUT") or "runs/notebook"
PRETRAINED = os.environ.get("FACEGENDER_PRETRAINED") or None
EPOCHS = int(os.environ.get("FACEGENDER_EPOCHS") or 0) or None
FACES = os.environ.get("FACEGENDER_FACES") or "faces"

# %%
import warnings

# tqdm, which a library imports, misses a widget that nothing here uses
warnings.filterwarnings("ignore", message="IProgress not found")

# %%
from collections import Counter
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from facegender import Classifier, predict_folder
from facegender.training.console import Console
from facegender.training.data.augmentation import augment, denormalize, normalize, random_numbers
from facegender.training.data.image_cache import cache_folder, cache_in_memory, open_image_cache
from facegender.training.data.samples import Sample
from facegender.training.data.subsets import assign_subsets
from facegender.training.evaluation.predictions_table import read_predictions
from facegender.training.evaluation.robustness import choose_samples, measure_robustness
from facegender.training.loop.history import read_history
from facegender.training.recipe import read_recipe, with_changes
from facegender.training.run_folder import TrainRequest
from facegender.training.train import train

recipe = with_changes(read_recipe(RECIPE), epochs=EPOCHS, seed=None)
run = Path(OUTPUT)
print(f"{recipe.name}: {recipe.network.name} at {recipe.input.height} px")
print("epochs:", recipe.train.epochs)

# %% [markdown]
# ## Read the archive
#
# Each image is decoded once, resized to the network's input, and cached beside the run folder; the
# next run on the same archive reads the cache. `classic` converts images to grayscale: three equal
# channels.

# %%
cache = open_image_cache(
    [Path(archive) for archive in ARCHIVES],
    Path(METADATA) if METADATA else None,
    recipe.input.aligner,
    cache_folder(run),
)
print(f"{len(cache.samples):,} images, {len(cache.unreadable):,} of them unreadable")
for (source, label), count in sorted(Counter((s.source, s.label) for s in cache.samples).items()):
    print(f"{source or 'no source':<12}{label:<8}{count:>8,}")

# %% [markdown]
# ## Split 80/20
#
# A fraction of 0.2 of the images is for validation, the same of each label and source. Exact copies
# are never split across training and validation, nor are the images of one person if `METADATA` has
# persons: evaluated on faces that it was trained on, a network looks better than it is. `train` below
# makes the same split again from the same seed, and writes it to `split.csv`.
#
# On the command line, `train` also audits the images before it splits them: it finds near duplicates
# and labels that are probably wrong ([audit](docs/guide/audit.md)). Here the audit is left out, so
# that this is the split that `train` uses.

# %%
split = assign_subsets(
    cache.samples, cache.digests, seed=recipe.train.seed, validation=0.2, errors=cache.errors
)
counts = Counter((row.subset, row.sample.label) for row in split)
for (subset, label), count in sorted(counts.items()):
    print(f"{subset or 'unreadable':<12}{label:<8}{count:>8,}")

# %% [markdown]
# ## What the network is given
#
# Training images are augmented at random every time they are used, and then normalized: the mean is
# subtracted, and the result divided by the standard deviation. To look at them, the normalization is
# undone. Above: the portraits of `FACES` without rotation; below: rotated as the recipe says.

# %%
training = np.array([row for row, item in enumerate(split) if item.subset == "train"])
portraits = sorted(Path(FACES).glob("*.jpg"))
shown = cache_in_memory(
    [(Sample("", path.name, "male"), path.read_bytes()) for path in portraits],
    recipe.input.aligner,
)
pixels = torch.from_numpy(shown.context_pixels)
crop_matrices = torch.from_numpy(shown.crop_matrices)
numbers = torch.from_numpy(random_numbers(recipe.train.seed, 0, np.arange(len(pixels))))
settings = {
    "without rotation": replace(recipe.augment, rotation_degrees=0.0, rotation_jitter_std=0.0),
    f"rotation up to {recipe.augment.rotation_degrees:g} degrees": recipe.augment,
}

figure, axes = plt.subplots(2, len(pixels), figsize=(1.6 * len(pixels), 3.8), squeeze=False)
for row, (name, options) in enumerate(settings.items()):
    augmented = augment(
        pixels,
        numbers,
        options,
        crop_matrices=crop_matrices,
        size=(recipe.input.height, recipe.input.width),
        grayscale=recipe.input.grayscale,
    )
    batch = normalize(augmented, recipe.input)
    for axis, image in zip(axes[row], denormalize(batch, recipe.input), strict=True):
        axis.imshow(image)
        axis.set_axis_off()
    axes[row, 0].text(0, -0.12, name, transform=axes[row, 0].transAxes, va="top")
plt.show()
print("a batch as the network is given it:", tuple(batch.shape), batch.dtype)

# %% [markdown]
# ## Train
#
# One call reads the cache, trains (`classic`: cross-entropy, SGD, five epochs), keeps the weights of
# the best epoch, calibrates, exports the model file and evaluates it. If ImageNet weights cannot be
# downloaded, set `PRETRAINED = "none"`. A run that was stopped continues with
# `train(None, None, run, resume=True)`.

# %%
request = TrainRequest(
    inputs=tuple(ARCHIVES), metadata=METADATA, pretrained=PRETRAINED, devices=1, audit=""
)
metrics = train(request, recipe, run, console=Console(quiet=True)).validation
print(*sorted(path.name for path in run.iterdir()), sep="\n")

# %% [markdown]
# ## Loss and accuracy
#
# Validation accuracy is the number of correct answers divided by the number of validation images. An
# earlier version of this notebook divided the correct answers of the validation loader by the length
# of the training loader; the result of that is printed below the curves.

# %%
history = read_history(run / "history.csv")
epochs = [row.epoch + 1 for row in history]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5))
for axis, name in ((left, "loss"), (right, "accuracy")):
    axis.plot(epochs, [getattr(row, name) for row in history], "o-", label="training (augmented)")
    validation = [getattr(row, f"validation_{name}") for row in history]
    axis.plot(epochs, validation, "o-", label="validation")
    axis.set(xlabel="epoch", ylabel=name)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend()
plt.show()

accuracy = metrics.accuracy
batches = -(-len(training) // recipe.train.batch_size)
print(f"correct answers over validation images: {accuracy.correct:,} of {accuracy.count:,}")
print(f"  that is {accuracy.value:.2%}, the accuracy")
print(f"over the {len(training):,} training images: {accuracy.correct / len(training):.2%}")
print(f"over the {batches:,} training batches: {accuracy.correct / batches:.2f}")

# %% [markdown]
# Only the first is an accuracy: the images that are counted are those that the count is divided by.
# The second cannot exceed a quarter when a fifth of the images is for validation, however good the
# network is, and the third is no fraction at all. Nothing warns of either: both are numbers that rise
# during training.

# %% [markdown]
# ## Accuracy by label and source
#
# These are metrics of the exported file on validation, with counts and 95% intervals. A small group
# has a wide interval, so its accuracy says little.

# %%
def describe(name, one):
    """Print one line of the table."""
    low, high = one.interval
    counts = f"{one.correct:>8,} of {one.count:>8,}"
    print(f"{name:<28}{counts}{one.value:>9.1%}  ({low:.1%} to {high:.1%})")


describe("all", metrics.accuracy)
for label, recall in metrics.recall.items():
    describe(label, recall)
for source, group in metrics.groups.get("sources", {}).items():
    describe(source, group.accuracy)
    for label, recall in group.recall.items():
        describe(f"  {label}", recall)

# %% [markdown]
# Is the network as confident as it is accurate? The answers are divided into ten bins of equal count
# by their probability; on the line, answers with a probability of 80% are correct in 80 of 100 cases.

# %%
predictions = read_predictions(run).of_subset("validation")
confidence = predictions.probabilities.max(1)
correct = predictions.probabilities.argmax(1) == predictions.labels
bins = [rows for rows in np.array_split(np.argsort(confidence), 10) if len(rows)]

figure, axis = plt.subplots(figsize=(4.5, 4.5))
axis.plot([0.5, 1], [0.5, 1], color="gray", linewidth=1)
axis.plot([confidence[b].mean() for b in bins], [correct[b].mean() for b in bins], "o-")
axis.set(xlabel="probability of the answer", ylabel="accuracy")
plt.show()
print(f"calibration error {metrics.calibration_error:.2%} over {len(correct):,} images")

# %% [markdown]
# ## Rotated faces
#
# An earlier version of this notebook had to choose: 90% accuracy without rotation in training, 80% with
# it. There is no need to choose, with initial weights of a network that knows faces, rotation of only a
# fraction of the images, and faces that are aligned by their landmarks (if the recipe's crop is
# `aligned`). The network is evaluated on validation images as they are, and rotated by 15, 30 and 45
# degrees.
#
# The run stored here is `quick`, which takes full images: at 45 degrees it loses a few points. The
# network that ships aligns the face of a rotated image again, and loses 0.6 points
# ([model card](MODEL_CARD.md#corruptions)).
#
# `classic` itself, on a fifth of the data, from random weights and after five epochs, classified 65.49%
# of 2,817 validation images correctly without rotation in training, and 63.37% with it; on the same
# images `quick` has 95.71%, and `best`, which was trained on all of the data, 97.30%, both with rotation
# ([network](docs/experiments/network.md#against-the-first-version)).

# %%
classifier = Classifier.load(OUTPUT)
robustness = measure_robustness(
    classifier,
    [Path(archive) for archive in ARCHIVES],
    choose_samples(predictions, 300),
    metadata=Path(METADATA) if METADATA else None,
)
describe("upright", robustness.clean)
rotation = next(curve for curve in robustness.curves if curve.name == "rotation")
for point in rotation.points:
    describe(f"rotated by {point.strength:g} degrees", point.accuracy)

# %% [markdown]
# ## Predict
#
# The run folder has the model file, and `predict_folder` classifies a folder of photos with it, as
# `facegender predict` does.

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
# ## The same on the command line
#
# ```
# facegender train internship_data.tar.gz --recipe classic --output runs/notebook
# facegender predict faces --model runs/notebook
# ```
#
# The second command classifies every image in the folder `faces` and writes `process_results.json`:
# `{"photo.jpg": "male", ...}`.
