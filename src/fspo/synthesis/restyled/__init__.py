"""The recipe for small models: a few sampled texts, restyled by rules so that attributes vary independently."""
