"""The paper's figures agree with each other where it prints one twice."""

from vitax.cost import vit_paper


def test_every_row_and_column_is_there():
    assert len(vit_paper.TABLE_6) == 18
    assert sum(model.startswith("ViT-") for model, _ in vit_paper.TABLE_6) == 6
    assert [c.core_days for c in vit_paper.TABLE_2] == [2500, 680, 230, 9900, 12300]
    assert len(vit_paper.TABLE_5) == 4 + 5 + 5


def test_table_5_and_table_6_print_the_same_fine_tuned_models():
    # H/14 differs between the two tables as printed.
    for row in (("ViT-B/32", 7), ("ViT-B/16", 7), ("ViT-L/32", 7), ("ViT-L/16", 14)):
        assert vit_paper.TABLE_6[row].accuracy == vit_paper.TABLE_5[row[0], "JFT-300M"], row


def test_twice_the_epochs_is_twice_the_compute():
    for model in ("ViT-L/16", "ResNet152x2"):
        ratio = vit_paper.TABLE_6[model, 14].exaflops / vit_paper.TABLE_6[model, 7].exaflops
        assert abs(ratio - 2) < 0.003


def test_accuracies_are_percentages_in_the_order_of_their_names():
    rows = [*vit_paper.TABLE_5.values(), *(row.accuracy for row in vit_paper.TABLE_6.values())]
    rows += [column.mean for column in vit_paper.TABLE_2]
    for row in rows:
        assert all(70 < value < 100 for value in row if value is not None)
        # ReaL is kinder than ImageNet's own labels, CIFAR-10 easier than CIFAR-100.
        assert row.imagenet2012_real > row.imagenet2012
        assert row.cifar10 is None or row.cifar10 > row.cifar100
