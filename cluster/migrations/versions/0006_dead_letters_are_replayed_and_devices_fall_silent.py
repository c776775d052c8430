"""Dead letters can be replayed, and know how they were encoded; devices may fall silent."""

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('silent_devices',
    sa.Column('tenant', sa.String(length=64), nullable=False),
    sa.Column('device', sa.String(length=64), nullable=False),
    sa.Column('since', sa.Float(), nullable=False),
    sa.PrimaryKeyConstraint('tenant', 'device', name=op.f('pk_silent_devices'))
    )
    with op.batch_alter_table('dead_letters', schema=None) as batch_op:
        batch_op.alter_column('source', existing_type=sa.String(length=32), type_=sa.String(length=64), existing_nullable=False)
        batch_op.add_column(sa.Column('content_type', sa.String(length=256), server_default='', nullable=False))
        batch_op.add_column(sa.Column('replays', sa.Integer(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('replayed_at', sa.Float(), nullable=True))
        batch_op.add_column(sa.Column('replayed_by', sa.String(length=64), nullable=True))


def downgrade() -> None:
    op.drop_table('silent_devices')
    with op.batch_alter_table('dead_letters', schema=None) as batch_op:
        batch_op.drop_column('replayed_by')
        batch_op.drop_column('replayed_at')
        batch_op.drop_column('replays')
        batch_op.drop_column('content_type')
        batch_op.alter_column('source', existing_type=sa.String(length=64), type_=sa.String(length=32), existing_nullable=False)
