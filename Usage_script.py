"""The short way in: asks for a folder with photos and writes process_results.json here.

    python Usage_script.py                    asks for the folder (Enter: faces)
    python Usage_script.py photos             takes the folder "photos"
    python Usage_script.py photos --model runs/mine

It is `facegender predict FOLDER`, with a question; `facegender predict --help` shows the rest.
"""

import argparse
import os
import sys

try:
    from facegender.cli import main
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed. In this folder, run:  pip install .")

parser = argparse.ArgumentParser(description="Male or female, for every photo in a folder.")
parser.add_argument("folder", nargs="?", help="folder with photos; asked for when left out")
parser.add_argument("--model", help="a model file or run folder of your own")
arguments = parser.parse_args()

folder = arguments.folder
if folder is None:
    try:
        folder = input("Folder with photos [faces]: ").strip().strip("\"'")
        folder = os.path.expanduser(folder)  # noqa: PTH111  (an empty answer stays empty)
    except EOFError:
        print()
    except KeyboardInterrupt:
        sys.exit(130)
options = ["--model", arguments.model] if arguments.model else []
main(["predict", *options, "--", folder or "faces"])
