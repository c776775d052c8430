"""Data sets have versions."""

import sqlalchemy as sa
from alembic import op

revision = '0010'
down_revision = '0009'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('dataset_versions',
    sa.Column('name', sa.String(length=192), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('parent', sa.String(length=64), nullable=True),
    sa.Column('source_kind', sa.String(length=16), nullable=False),
    sa.Column('tenant', sa.String(length=64), nullable=True),
    sa.Column('content', sa.String(length=64), nullable=False),
    sa.Column('labels', sa.String(length=64), nullable=False),
    sa.Column('num_series', sa.Integer(), nullable=False),
    sa.Column('num_readings', sa.BigInteger(), nullable=False),
    sa.Column('num_labels', sa.Integer(), nullable=False),
    sa.Column('num_held_out_devices', sa.Integer(), nullable=False),
    sa.Column('from_ts', sa.Float(), nullable=True),
    sa.Column('to_ts', sa.Float(), nullable=True),
    sa.Column('created_at', sa.Float(), nullable=False),
    sa.Column('created_by', sa.String(length=128), nullable=False),
    sa.Column('is_kept', sa.Boolean(), nullable=False),
    sa.PrimaryKeyConstraint('name', 'version', name=op.f('pk_dataset_versions')),
    sa.UniqueConstraint('name', 'id', name='uq_dataset_versions_name_id')
    )
    op.create_index('ix_dataset_versions_id', 'dataset_versions', ['id'])
    op.create_index('ix_dataset_versions_created_at', 'dataset_versions', ['created_at'])


def downgrade() -> None:
    op.drop_table('dataset_versions')
