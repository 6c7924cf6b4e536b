"""One readable loop each; no stage imports another, but for the demo, which walks them all."""
