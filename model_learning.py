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
# This command, in this folder, installs everything that the notebook needs, and opens it:
#
# ```
# pip install -c constraints.txt -e ".[dev]" jupyterlab && jupyter lab model_learning.ipynb
# ```
#
# It runs from top to bottom as it is. With `internship_data.tar.gz` beside it, it trains the recipe
# `classic` on that archive. Without it, it makes a demonstration set from the portraits in `faces/`:
# 160 altered copies of six photos of four people. Copies of the same photos are in training and in
# validation, so **the numbers of a demonstration mean nothing**: it shows only that each step works.
#
# **The outputs stored here are of neither.** They are of one run of the recipe `quick` on a fifth of
# the training data of the model that ships ([data](MODEL_CARD.md#how-it-was-made)), whose images may not be shown:
#
# ```
# FACEGENDER_ARCHIVES=faces-0.tar.gz FACEGENDER_METADATA=faces.csv FACEGENDER_RECIPE=quick \
#     jupyter execute --inplace model_learning.ipynb
# ```

# %% [markdown]
# ## Settings
#
# | name | meaning |
# | --- | --- |
# | `ARCHIVES` | archives (`.tar`, `.tar.gz`, `.zip`) or folders with `male/` and `female/` inside; none makes the demonstration set |
# | `METADATA` | a CSV file with the person, source and age of images, or `None` |
# | `RECIPE` | `"classic"`: ResNet-18, 224 px, grayscale, rotation up to 45 degrees; `"quick"` (of the demonstration): minutes on a CPU; or a TOML file |
# | `OUTPUT` | the run folder; a run is never overwritten: the first free one of `runs/notebook-1`, `runs/notebook-2`, ... |
# | `PRETRAINED` | initial weights: `None` takes the recipe's (`classic` downloads ImageNet weights), `"none"` takes random ones, a path reads a file |
# | `EPOCHS` | `None` takes the recipe's number |
# | `FACES` | a folder of portraits that are shown and classified: no image of `ARCHIVES` is shown here |
# | `FEMALE` | the files in `FACES` that are labeled female; the others are labeled male |
#
# Each can also be set by an environment variable of the same name after `FACEGENDER_`; several
# archives are separated as in `PATH`.

# %% tags=["parameters"]
import itertools
import os
from pathlib import Path

given = os.environ.get("FACEGENDER_ARCHIVES") or "internship_data.tar.gz"
ARCHIVES = given.split(os.pathsep)
if "FACEGENDER_ARCHIVES" not in os.environ and not Path(given).exists():
    ARCHIVES = []
METADATA = os.environ.get("FACEGENDER_METADATA") or None
RECIPE = os.environ.get("FACEGENDER_RECIPE") or ("classic" if ARCHIVES else "quick")
names = (f"runs/notebook-{number}" for number in itertools.count(1))
free = (name for name in names if not Path(name).exists())
OUTPUT = os.environ.get("FACEGENDER_OUTPUT") or next(free)
PRETRAINED = os.environ.get("FACEGENDER_PRETRAINED") or None
EPOCHS = int(os.environ.get("FACEGENDER_EPOCHS") or 0) or None
FACES = os.environ.get("FACEGENDER_FACES") or "faces"
FEMALE = {"eileen_collins.jpg", "grace_hopper.jpg"}

# %%
import warnings

# tqdm, which a library imports, misses a widget that nothing here uses
warnings.filterwarnings("ignore", message="IProgress not found")

# %%
import io
import tarfile
from collections import Counter
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from facegender import Classifier, predict_folder
from facegender.training.console import Console
from facegender.training.data.augmentation import augment, denormalize, normalize, random_numbers
from facegender.training.data.image_cache import cache_folder, cache_in_memory, open_image_cache
from facegender.training.data.samples import Sample
from facegender.training.data.subsets import assign_subsets
from facegender.training.evaluation.predictions_table import read_predictions
from facegender.training.evaluation.robustness import choose_samples, measure_robustness
from facegender.training.loop.history import read_history
from facegender.training.models.networks import build_network
from facegender.training.recipe import read_recipe, with_changes
from facegender.training.run_folder import TrainRequest
from facegender.training.train import train

recipe = with_changes(read_recipe(RECIPE), epochs=EPOCHS, seed=None)
if not ARCHIVES:  # a demonstration takes a minute, not the minutes that a useful network takes
    recipe = replace(recipe, train=replace(recipe.train, batch_size=32, min_steps=20))
run = Path(OUTPUT)
portraits = sorted(Path(FACES).glob("*.jpg"))
print(f"{recipe.name}: {recipe.network.name} at {recipe.input.height} px")
print("epochs:", recipe.train.epochs)
print("device:", "cuda" if torch.cuda.is_available() else "cpu")

# %% [markdown]
# ## The first version of this notebook
#
# It fine-tuned ResNet-18 in one notebook. The recipe `classic` is what it did, and each step is here:
#
# | step | here |
# | --- | --- |
# | unpack `internship_data.tar.gz` with the folders `male` and `female` | read as it is; an unpacked folder works too |
# | split: 0.2 for validation | `validation=0.2` |
# | rotate at random by up to 45 degrees | `rotation_degrees = 45`, `rotation_prob = 1` |
# | resize to 224 x 224 | `height = 224`, `width = 224` |
# | grayscale as three equal channels | `grayscale = true` |
# | tensor, normalize with the mean and the standard deviation of ImageNet | `mean`, `std` |
# | show batches with the normalization undone | `denormalize`, below |
# | ResNet-18, the last layer replaced by one with two outputs, all weights trainable | `name = "resnet18"`, `pretrained = "timm"` |
# | cross-entropy, SGD with learning rate 0.001 and momentum 0.9 | `optimizer = "sgd"`, `learning_rate`, `momentum` |
# | five epochs, on CUDA if there is a device | `epochs = 5`; `train` takes CUDA by itself |
# | save the model | `saved_model` in the run folder |

# %%
classic = read_recipe("classic")
network = build_network(classic.network.name)
weights = list(network.parameters())
trainable = sum(each.numel() for each in weights if each.requires_grad)
print("last layer:", network.fc)
print(f"trainable: {trainable:,} of {sum(each.numel() for each in weights):,} weights")
options = classic.train
print(f"{options.optimizer}, {options.learning_rate=}, {options.momentum=}, {options.epochs=}")

# %% [markdown]
# ## Demonstration set
#
# Only without an archive: random squares of the portraits, some mirrored, each of another brightness;
# 80 of either label.

# %%
def write_demonstration(path, count=80, seed=0):
    """Write altered copies of the portraits to an archive with male/ and female/."""
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for label in ("female", "male"):
            photos = [each for each in portraits if (each.name in FEMALE) == (label == "female")]
            for number in range(count):
                image = Image.open(photos[number % len(photos)]).convert("RGB")
                side = round(random.uniform(0.75, 1) * min(image.size))
                left, top = (int(random.integers(0, length - side + 1)) for length in image.size)
                image = image.crop((left, top, left + side, top + side)).resize((128, 128))
                pixels = np.asarray(image) * random.uniform(0.7, 1.2)
                pixels = pixels[:, :: random.choice((1, -1))].clip(0, 255)
                file = io.BytesIO()
                Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
                entry = tarfile.TarInfo(f"{label}/{number:02}.png")
                entry.size = file.tell()
                archive.addfile(entry, io.BytesIO(file.getvalue()))


if not ARCHIVES:
    ARCHIVES = [str(run.parent / "demonstration.tar.gz")]
    if not Path(ARCHIVES[0]).exists():
        write_demonstration(Path(ARCHIVES[0]))
    print(f"DEMONSTRATION on {ARCHIVES[0]}: the numbers below mean nothing")

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
# subtracted, and the result divided by the standard deviation. To look at a batch, the normalization
# is undone. These are the portraits of `FACES` as training images: without rotation; as the recipe
# augments them; and as `classic` does.

# %%
def training_batch(recipe):
    """Give the portraits to a recipe's augmentation, and normalize them."""
    samples = [(Sample("", path.name, "male"), path.read_bytes()) for path in portraits]
    shown = cache_in_memory(samples, recipe.input.aligner)
    numbers = random_numbers(recipe.train.seed, 0, np.arange(len(samples)))
    augmented = augment(
        torch.from_numpy(shown.context_pixels),
        torch.from_numpy(numbers),
        recipe.augment,
        crop_matrices=torch.from_numpy(shown.crop_matrices),
        size=(recipe.input.height, recipe.input.width),
        grayscale=recipe.input.grayscale,
    )
    return normalize(augmented, recipe.input)


upright = replace(recipe.augment, rotation_degrees=0.0, rotation_jitter_std=0.0)
rows = {f"{recipe.name} without rotation": replace(recipe, augment=upright)}
rows |= {each.name: each for each in (recipe, classic)}

size = (9.6, 1.9 * len(rows))
figure, axes = plt.subplots(len(rows), len(portraits), figsize=size, squeeze=False)
for line, (name, each) in zip(axes, rows.items(), strict=True):
    batch = training_batch(each)
    for axis, image in zip(line, denormalize(batch, each.input), strict=True):
        axis.imshow(image)
        axis.set_axis_off()
    line[0].text(0, -0.12, name, transform=line[0].transAxes, va="top")
    print(f"{name}: a batch of shape {tuple(batch.shape)}, {batch.dtype}")
plt.show()

# %% [markdown]
# ## Train
#
# One call reads the cache, trains (`classic`: cross-entropy, SGD, five epochs), keeps the weights of
# the best epoch, saves them (`saved_model`), calibrates, exports the model file and evaluates it. If
# ImageNet weights cannot be downloaded, set `PRETRAINED = "none"`. A run that was stopped continues with
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
training = sum(row.subset == "train" for row in split)
batches = -(-training // recipe.train.batch_size)
print(f"correct answers over validation images: {accuracy.correct:,} of {accuracy.count:,}")
print(f"  that is {accuracy.value:.2%}, the accuracy")
print(f"over the {training:,} training images: {accuracy.correct / training:.2%}")
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
# ## Confusion matrix
#
# Labels of the validation images in rows, answers of the network in columns.

# %%
names = list(metrics.confusion)
matrix = np.array([[metrics.confusion[label][answer] for answer in names] for label in names])
figure, axis = plt.subplots(figsize=(3.5, 3.5))
axis.imshow(matrix, cmap="Blues", vmin=0)
for (row, column), number in np.ndenumerate(matrix):
    color = "white" if number > matrix.max() / 2 else "black"
    axis.text(column, row, f"{number:,}", ha="center", va="center", color=color)
axis.set(xlabel="answer", ylabel="label")
axis.set_xticks(range(len(names)), names)
axis.set_yticks(range(len(names)), names)
plt.show()

# %% [markdown]
# ## Calibration
#
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
# ## Most confident errors
#
# These are the wrong answers on validation with the highest probability. Their images are in
# `report.html` of the run folder: look there first at whether the label is right
# ([audit](docs/guide/audit.md)).

# %%
wrong = np.flatnonzero(~correct)
for row in wrong[np.argsort(-confidence[wrong])][:10]:
    sample = predictions.samples[row]
    answer = "male" if predictions.p_male[row] > 0.5 else "female"
    print(f"{sample.file:<34}label {sample.label:<8}answer {answer:<8}{confidence[row]:.1%}")
print(f"{len(wrong):,} wrong answers of {len(correct):,}")

# %% [markdown]
# The portraits may be shown. Each is rotated by 0, 15, 30 and 45 degrees to either side, and these are
# the six answers that are furthest from the label, wrong ones in red.

# %%
classifier = Classifier.load(OUTPUT)
found = []
for path in portraits:
    label = "female" if path.name in FEMALE else "male"
    for degrees in (0, 15, -15, 30, -30, 45, -45):
        image = Image.open(path).convert("RGB").rotate(degrees, Image.Resampling.BILINEAR)
        row = classifier.predict(image)
        if row.label:
            p_label = row.probability if row.label == label else 1 - row.probability
            found.append((p_label, row.label, label, image))
found.sort(key=lambda each: each[0])

figure, axes = plt.subplots(1, 6, figsize=(9.6, 2.2))
for axis, (p_label, answer, label, image) in zip(axes, found, strict=False):
    axis.imshow(image)
    color = "black" if answer == label else "red"
    axis.set_title(f"{answer} {max(p_label, 1 - p_label):.0%}", fontsize=9, color=color)
    axis.set_xlabel(f"label {label}", fontsize=8)
    axis.set(xticks=[], yticks=[])
plt.show()
errors = sum(answer != label for _, answer, label, _ in found)
print(f"{errors} wrong answers on {len(found)} rotated portraits")

# %% [markdown]
# ## Rotated faces
#
# An earlier version of this notebook had to choose: 90% accuracy without rotation in training, 80% with
# it. There is no need to choose, with initial weights of a network that knows faces, rotation of only a
# fraction of the images, and faces that are aligned by their landmarks (if the recipe's crop is
# `aligned`). The network is evaluated on validation images as they are, and rotated by 15, 30 and 45
# degrees.
#
# The run stored here is `quick`, which takes full images and loses more at 45 degrees. The network
# that ships aligns the face of a rotated image again, and loses 0.6 points
# ([model card](MODEL_CARD.md#corruptions)).
#
# `classic` itself, on a fifth of the data, from random weights and after five epochs, classified 65.49%
# of 2,817 validation images correctly without rotation in training, and 63.37% with it; on the same
# images `quick` has 95.71%, and `best`, which was trained on all of the data, 97.30%, both with rotation
# ([network](docs/experiments/network.md#against-the-first-version)).

# %%
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
# facegender train internship_data.tar.gz --recipe classic --output runs/classic
# facegender predict faces --model runs/classic
# ```
#
# The second command classifies every image in the folder `faces` and writes `process_results.json`:
# `{"photo.jpg": "male", ...}`.
