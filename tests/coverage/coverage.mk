# Coverage: the unit and machine tests, built to count which lines ran (variant `coverage`).
.PHONY: coverage
coverage: ## print how much of vmm/ and api/ the tests run
	@scripts/setup --for test
	@$(MAKE) --no-print-directory -s -j2 programs guests
	@$(MAKE) --no-print-directory -s -j2 VARIANT=coverage checks
	@find $(BUILD)/coverage -name '*.gcda' -delete
	@tests/run --build $(BUILD) coverage
	@tests/coverage/report --build $(BUILD)
