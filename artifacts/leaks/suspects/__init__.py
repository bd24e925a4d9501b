"""Readers that turn a stranger's file into tables of tensors, believing nothing that the file says about itself."""
