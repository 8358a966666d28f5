module patgate.test/workload

go 1.26
