"""Contract suites for plug-ins: subclass one in a test file, and pytest runs its laws.

    from laser_search.testing.kinds import KindContract

    class TestMine(KindContract):
        @pytest.fixture
        def kind(self):
            return Mine()

They need pytest (`pip install 'laser-search[test]'`). docs/extending.md shows one of each.
"""
