"""An ensemble of the trained network and two published ones, as one model file."""
