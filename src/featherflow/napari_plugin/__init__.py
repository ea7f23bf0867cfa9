"""A plugin of napari: flow, tracks and vorticity as layers. `layers` computes, without napari; `widget` is what a person sees."""
