// What `make bench-admission` measures the project's webhook against, and measures with. The standard library alone.
module ipvlan-bandwidth/tests/bench/admission-go

go 1.26
