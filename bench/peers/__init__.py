"""The peers that Vigía is compared with, each written as its own documentation recommends."""
