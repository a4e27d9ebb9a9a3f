"""Named sources of labelled images to arrays, samplers of batches, and augmentation."""

from simjax.data._augment import Augmentation as Augmentation
from simjax.data._augment import augment as augment
from simjax.data._augment import default_augmentation as default_augmentation
from simjax.data._dataset import Dataset as Dataset
from simjax.data._export import export as export
from simjax.data._folder import has_test_folder as has_test_folder
from simjax.data._load import DATASETS as DATASETS
from simjax.data._load import load as load
from simjax.data._normalise import normalise as normalise
from simjax.data._normalise import statistics as statistics
from simjax.data._prepare import prepare as prepare
from simjax.data._resize import resize as resize
from simjax.data._sample_by_score import sample_by_score as sample_by_score
from simjax.data._sample_by_score import sample_unique_labels as sample_unique_labels
from simjax.data._sample_in_turn import Hierarchy as Hierarchy
from simjax.data._sample_in_turn import hierarchy as hierarchy
from simjax.data._sample_in_turn import sample_classes_in_turn as sample_classes_in_turn
from simjax.data._sample_in_turn import sample_hierarchical as sample_hierarchical
from simjax.data._sample_triplets import fixed_triplets as fixed_triplets
from simjax.data._sample_triplets import sample_triplets as sample_triplets
from simjax.data._sampler import ClassTable as ClassTable
from simjax.data._sampler import class_table as class_table
from simjax.data._sampler import epoch_order as epoch_order
from simjax.data._sampler import sample_m_per_class as sample_m_per_class
from simjax.data._sampler import sample_pairs as sample_pairs
from simjax.data._turns import shuffled as shuffled
