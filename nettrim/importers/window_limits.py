"""The largest windows and paddings that importers take."""

LARGEST_STEP = 1 << 15  # of filters, strides and dilations: what 16-bit fields of boards' kernels hold
LARGEST_PADDING = 1 << 10  # far above any filter, and a padded image still fits the memory
