"""Ask for a folder of photos and write process_results.json to the current folder.

    python Usage_script.py                    asks for the folder (Enter: faces, here or
                                              beside this script)
    python Usage_script.py photos             uses the folder "photos"
    python Usage_script.py photos --model runs/mine

The same as `facegender predict FOLDER`; see `facegender predict --help` for all options.
"""

import argparse
import os
import sys
from pathlib import Path

try:
    from facegender.cli import main
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed. In this folder, run:  pip install .")

parser = argparse.ArgumentParser(
    description="Classify the faces in a folder of photos as male or female."
)
parser.add_argument("folder", nargs="?", help="folder of photos; asked for if omitted")
parser.add_argument("--model", help="a model file or run folder of your own")
arguments = parser.parse_args()

faces = Path("faces")  # here, or beside this script
if not faces.is_dir():
    faces = Path(__file__).parent / "faces"
folder = arguments.folder
if folder is None:
    try:
        folder = input("Folder of photos [faces]: ").strip().strip("\"'")
        folder = os.path.expanduser(folder)  # noqa: PTH111  (an empty answer stays empty)
    except EOFError:
        print()
    except KeyboardInterrupt:
        sys.exit(130)
options = ["--model", arguments.model] if arguments.model else []
main(["predict", *options, "--", folder or str(faces)])
