"""The corridor between the roles: messages over RabbitMQ. pika lives here and nowhere else."""
