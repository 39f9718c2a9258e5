"""The input side of the flow: data sets, augmentation, mapper, loaders and the data set checker.

Nothing is imported here, so that the checker and the shapes generator start without Detectron2's
whole data stack.
"""
