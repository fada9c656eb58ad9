"""The tiny static program that starts every processor, and how it is built."""
